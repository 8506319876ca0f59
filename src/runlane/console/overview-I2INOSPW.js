import{X as e,a as t,ba as i,fa as r}from"./chunk-7JNZVEGU.js";function o(){return e(t,{children:[e(i,{title:"Overview"}),e(r,{children:"This page is not there yet."})]})}export{o as default};
