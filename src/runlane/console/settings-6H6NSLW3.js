import{A as i,C as n,a as e,z as t}from"./chunk-CGZVELVJ.js";function o(){return t(e,{children:[t(i,{title:"Settings"}),t(n,{children:"This page is not there yet."})]})}export{o as default};
