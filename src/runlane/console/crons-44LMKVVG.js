import{A as o,C as r,a as e,z as t}from"./chunk-CGZVELVJ.js";function n(){return t(e,{children:[t(o,{title:"Crons"}),t(r,{children:"This page is not there yet."})]})}export{n as default};
