import{X as t,a as e,ba as o,fa as r}from"./chunk-7JNZVEGU.js";function n(){return t(e,{children:[t(o,{title:"Crons"}),t(r,{children:"This page is not there yet."})]})}export{n as default};
