import{A as o,C as a,a as e,z as t}from"./chunk-CGZVELVJ.js";function i(){return t(e,{children:[t(o,{title:"Usage"}),t(a,{children:"This page is not there yet."})]})}export{i as default};
