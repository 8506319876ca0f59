import{X as t,a as e,ba as i,fa as n}from"./chunk-7JNZVEGU.js";function o(){return t(e,{children:[t(i,{title:"Settings"}),t(n,{children:"This page is not there yet."})]})}export{o as default};
