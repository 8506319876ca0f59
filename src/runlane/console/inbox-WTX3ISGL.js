import{A as o,C as n,a as e,z as t}from"./chunk-CGZVELVJ.js";function i(){return t(e,{children:[t(o,{title:"Inbox"}),t(n,{children:"This page is not there yet."})]})}export{i as default};
