import{$ as r,T as e,Y as i,a as t}from"./chunk-JD2STCM5.js";function o(){return e(t,{children:[e(i,{title:"Overview"}),e(r,{children:"This page is not there yet."})]})}export{o as default};
