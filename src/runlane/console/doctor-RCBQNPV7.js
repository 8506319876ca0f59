import{A as e,C as r,a as o,z as t}from"./chunk-CGZVELVJ.js";function i(){return t(o,{children:[t(e,{title:"Doctor"}),t(r,{children:"This page is not there yet."})]})}export{i as default};
