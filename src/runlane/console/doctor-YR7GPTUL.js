import{X as t,a as o,ba as e,fa as r}from"./chunk-7JNZVEGU.js";function i(){return t(o,{children:[t(e,{title:"Doctor"}),t(r,{children:"This page is not there yet."})]})}export{i as default};
