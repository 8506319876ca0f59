import{$ as t,a as o,ga as e,ka as r}from"./chunk-JIXHGSTW.js";function i(){return t(o,{children:[t(e,{title:"Doctor"}),t(r,{children:"This page is not there yet."})]})}export{i as default};
