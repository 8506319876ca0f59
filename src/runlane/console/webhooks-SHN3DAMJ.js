import{X as t,a as e,ba as o,fa as h}from"./chunk-7JNZVEGU.js";function i(){return t(e,{children:[t(o,{title:"Webhooks"}),t(h,{children:"This page is not there yet."})]})}export{i as default};
