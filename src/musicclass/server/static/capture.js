// The audio worklet of live.js: blocks of mono samples.
registerProcessor("capture", class extends AudioWorkletProcessor {
  process([[channel]]) {
    if (channel) this.port.postMessage(channel.slice());
    return true;
  }
});
