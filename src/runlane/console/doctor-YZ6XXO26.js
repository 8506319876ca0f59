import{$ as r,T as t,Y as e,a as o}from"./chunk-JD2STCM5.js";function i(){return t(o,{children:[t(e,{title:"Doctor"}),t(r,{children:"This page is not there yet."})]})}export{i as default};
