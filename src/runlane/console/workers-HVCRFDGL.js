import{X as t,a as e,ba as r,fa as o}from"./chunk-7JNZVEGU.js";function i(){return t(e,{children:[t(r,{title:"Workers"}),t(o,{children:"This page is not there yet."})]})}export{i as default};
