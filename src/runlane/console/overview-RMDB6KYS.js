import{A as i,C as r,a as t,z as e}from"./chunk-CGZVELVJ.js";function o(){return e(t,{children:[e(i,{title:"Overview"}),e(r,{children:"This page is not there yet."})]})}export{o as default};
