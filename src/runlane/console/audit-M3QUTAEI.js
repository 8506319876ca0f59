import{$ as o,T as t,Y as i,a as e}from"./chunk-JD2STCM5.js";function d(){return t(e,{children:[t(i,{title:"Audit"}),t(o,{children:"This page is not there yet."})]})}export{d as default};
