import{A as i,C as o,a as e,z as t}from"./chunk-CGZVELVJ.js";function d(){return t(e,{children:[t(i,{title:"Audit"}),t(o,{children:"This page is not there yet."})]})}export{d as default};
