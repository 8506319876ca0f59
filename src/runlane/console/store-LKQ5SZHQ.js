import{$ as t,a as e,ga as o,ka as r}from"./chunk-JIXHGSTW.js";function i(){return t(e,{children:[t(o,{title:"Store"}),t(r,{children:"This page is not there yet."})]})}export{i as default};
