import{A as o,C as r,a as e,z as t}from"./chunk-CGZVELVJ.js";function i(){return t(e,{children:[t(o,{title:"Store"}),t(r,{children:"This page is not there yet."})]})}export{i as default};
