import{$ as i,T as t,Y as e,a as s}from"./chunk-JD2STCM5.js";function n(){return t(s,{children:[t(e,{title:"Assistants"}),t(i,{children:"This page is not there yet."})]})}export{n as default};
