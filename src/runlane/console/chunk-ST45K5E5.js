import{p as n}from"./chunk-GYKFSVBU.js";var e=1e4,t=()=>n.value?.operator??!0;export{e as a,t as b};
