import{$ as m,T as t,Y as e,a as i}from"./chunk-JD2STCM5.js";function o(){return t(i,{children:[t(e,{title:"Limits"}),t(m,{children:"This page is not there yet."})]})}export{o as default};
