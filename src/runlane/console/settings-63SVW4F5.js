import{$ as n,T as t,Y as i,a as e}from"./chunk-JD2STCM5.js";function o(){return t(e,{children:[t(i,{title:"Settings"}),t(n,{children:"This page is not there yet."})]})}export{o as default};
