import{A as n,C as o,a as e,z as t}from"./chunk-CGZVELVJ.js";function i(){return t(e,{children:[t(n,{title:"Runs"}),t(o,{children:"This page is not there yet."})]})}export{i as default};
