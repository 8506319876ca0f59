import{X as t,a as e,ba as o,fa as r}from"./chunk-7JNZVEGU.js";function i(){return t(e,{children:[t(o,{title:"Store"}),t(r,{children:"This page is not there yet."})]})}export{i as default};
