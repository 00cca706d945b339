// The frame with the page, and the way between it and the engine in Python.
function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.srcdoc = model.get("html");
  frame.title = model.get("title");
  frame.sandbox = "allow-scripts allow-downloads";
  frame.style = `width: 100%; height: ${model.get("height")}px; border: 0`;
  const say = (message) => frame.contentWindow?.postMessage(message, "*");
  const hear = (event) => event.source === frame.contentWindow && model.send(event.data);
  frame.onload = () => say({ engine: true });
  model.on("msg:custom", say);
  addEventListener("message", hear);
  el.append(frame);
  return () => removeEventListener("message", hear);
}

export default { render };
