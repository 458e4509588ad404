import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Nothing is inlined: the server's Content-Security-Policy allows scripts and styles of files only.
export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: "../src/fairlead/web/bundle",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: ["chrome123", "firefox121", "safari17.5"],
  },
  server: { proxy: { "/api": { target: "http://127.0.0.1:8000", changeOrigin: false } } }, // the server compares Host with Origin
});
