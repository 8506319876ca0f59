import{A as e,C as m,a as i,z as t}from"./chunk-CGZVELVJ.js";function o(){return t(i,{children:[t(e,{title:"Limits"}),t(m,{children:"This page is not there yet."})]})}export{o as default};
