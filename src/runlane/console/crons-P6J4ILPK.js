import{$ as r,T as t,Y as o,a as e}from"./chunk-JD2STCM5.js";function n(){return t(e,{children:[t(o,{title:"Crons"}),t(r,{children:"This page is not there yet."})]})}export{n as default};
