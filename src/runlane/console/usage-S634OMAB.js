import{$ as a,T as t,Y as o,a as e}from"./chunk-JD2STCM5.js";function i(){return t(e,{children:[t(o,{title:"Usage"}),t(a,{children:"This page is not there yet."})]})}export{i as default};
