import{X as t,a as e,ba as o,fa as a}from"./chunk-7JNZVEGU.js";function i(){return t(e,{children:[t(o,{title:"Usage"}),t(a,{children:"This page is not there yet."})]})}export{i as default};
