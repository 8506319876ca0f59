import{A as o,C as h,a as e,z as t}from"./chunk-CGZVELVJ.js";function i(){return t(e,{children:[t(o,{title:"Webhooks"}),t(h,{children:"This page is not there yet."})]})}export{i as default};
