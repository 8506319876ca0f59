import{$ as r,T as t,Y as o,a as e}from"./chunk-JD2STCM5.js";function i(){return t(e,{children:[t(o,{title:"Store"}),t(r,{children:"This page is not there yet."})]})}export{i as default};
