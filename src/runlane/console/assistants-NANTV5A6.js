import{X as t,a as s,ba as e,fa as i}from"./chunk-7JNZVEGU.js";function n(){return t(s,{children:[t(e,{title:"Assistants"}),t(i,{children:"This page is not there yet."})]})}export{n as default};
