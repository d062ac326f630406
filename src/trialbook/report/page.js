// Plots take the page's colours, and follow when the reader's system turns dark or light.
function paint() {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  for (const plot of document.querySelectorAll(".plotly-graph-div")) {
    const colours = { "font.color": ink, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
    for (const axis of Object.keys(plot.layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      for (const part of ["gridcolor", "zerolinecolor", "linecolor"]) colours[`${axis}.${part}`] = line;
    }
    Plotly.relayout(plot, colours);
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
paint();
