import{X as t,a as i,ba as e,fa as m}from"./chunk-7JNZVEGU.js";function o(){return t(i,{children:[t(e,{title:"Limits"}),t(m,{children:"This page is not there yet."})]})}export{o as default};
