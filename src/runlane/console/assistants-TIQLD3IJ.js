import{A as e,C as i,a as s,z as t}from"./chunk-CGZVELVJ.js";function n(){return t(s,{children:[t(e,{title:"Assistants"}),t(i,{children:"This page is not there yet."})]})}export{n as default};
