import{o as n}from"./chunk-JIXHGSTW.js";var e=1e4,t=()=>n.value?.operator??!0;export{e as a,t as b};
