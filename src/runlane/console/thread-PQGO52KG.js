import{A as r,C as o,a as e,z as t}from"./chunk-CGZVELVJ.js";function a(){return t(e,{children:[t(r,{title:"Thread"}),t(o,{children:"This page is not there yet."})]})}export{a as default};
