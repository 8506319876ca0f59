import{$ as o,T as t,Y as r,a as e}from"./chunk-JD2STCM5.js";function i(){return t(e,{children:[t(r,{title:"Workers"}),t(o,{children:"This page is not there yet."})]})}export{i as default};
