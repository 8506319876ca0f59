import{X as t,a as e,ba as i,fa as o}from"./chunk-7JNZVEGU.js";function d(){return t(e,{children:[t(i,{title:"Audit"}),t(o,{children:"This page is not there yet."})]})}export{d as default};
