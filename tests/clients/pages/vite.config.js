import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: { rollupOptions: { input: ["v1.html", "v2.html"].map((name) => new URL(name, import.meta.url).pathname) } },
});
