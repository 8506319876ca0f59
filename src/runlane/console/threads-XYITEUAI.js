import{$ as o,T as t,Y as r,a as e}from"./chunk-JD2STCM5.js";function a(){return t(e,{children:[t(r,{title:"Threads"}),t(o,{children:"This page is not there yet."})]})}export{a as default};
