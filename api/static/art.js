// A moving picture for a video that has none: colours by its id, a sign by its category.
const SIGNS = [
  [/shoe|鞋/i, "M2 15c3-1 5-4 6-7l3 2c1 2 3 3 6 3s5 1 5 4v1H2z M2 18h20 M11 10l-2 2 M13 12l-2 2"],
  [/cloth|服/i, "M8 4l-6 4 2 4 3-1v9h10v-9l3 1 2-4-6-4c-1 2-7 2-8 0z"],
  [/bag|箱包/i, "M5 8h14l1 13H4z M9 8V6a3 3 0 0 1 6 0v2"],
  [/beauty|美妆/i, "M12 3c4 5 6 8 6 11a6 6 0 0 1-12 0c0-3 2-6 6-11z M9 14a3 3 0 0 0 3 3"],
  [/hair|个护/i, "M6 3v10a3 3 0 0 0 6 0V3 M9 3v10 M15 3v18 M19 3v18 M15 12h4"],
  [/kitchen|厨房/i, "M4 9h12v5a5 5 0 0 1-5 5H9a5 5 0 0 1-5-5z M16 10h2a3 3 0 0 1 0 6h-2 M7 3v3 M10 3v3 M13 3v3"],
  [/home|家居/i, "M8 3h8l4 9H4z M12 12v8 M7 21h10"],
  [/clean|清洁/i, "M3 14a9 9 0 0 1 18 0v4H3z M8 14a4 4 0 0 1 8 0 M12 5v3"],
  [/electr|数码/i, "M4 15v-3a8 8 0 0 1 16 0v3 M4 14h3v6H4z M17 14h3v6h-3z"],
  [/baby|母婴/i, "M12 4a5 5 0 1 1 0 10 5 5 0 0 1 0-10z M12 14v6 M9 20h6 M10 8h.1 M14 8h.1"],
  [/pet|animal|宠/i, "M12 12c3 0 6 3 6 6 0 3-3 2-6 2s-6 1-6-2c0-3 3-6 6-6z M5 11a1.500 2 0 1 1 0-.1 M9 7a1.500 2 0 1 1 0-.1 M16.500 7a1.500 2 0 1 1 0-.1 M20.500 11a1.500 2 0 1 1 0-.1"],
  [/sport|fitness|运动|健身/i, "M3 9v6 M6 7v10 M18 7v10 M21 9v6 M6 12h12"],
  [/garden|绿植/i, "M12 21v-9 M12 12C12 7 8 5 3 5c0 5 4 7 9 7z M12 15c0-4 4-6 9-6 0 5-4 7-9 6z"],
  [/cook|recipe|美食/i, "M3 11h18a9 9 0 0 1-6 8H9a9 9 0 0 1-6-8z M8 3c-1 2 1 3 0 5 M12 3c-1 2 1 3 0 5 M16 3c-1 2 1 3 0 5"],
  [/food|食品/i, "M5 3v7a3 3 0 0 0 6 0V3 M8 3v18 M16 21V3c4 1 4 8 0 10"],
  [/jewel|珠宝/i, "M8 3h8l3 4-7 9-7-9z M5 7h14 M12 16l-3-9 M12 16l3-9 M12 16v5"],
  [/car\b|auto|汽车/i, "M3 16v-3l3-6h12l3 6v3z M3 13h18 M6 16v3 M18 16v3"],
  [/book|station|文具/i, "M4 20l1-5L16 4l4 4L9 19z M14 6l4 4"],
  [/dance|music|舞/i, "M9 18V6l11-2v12 M9 18a3 2.500 0 1 1-6 0 3 2.500 0 0 1 6 0z M20 16a3 2.500 0 1 1-6 0 3 2.500 0 0 1 6 0z"],
  [/travel|旅/i, "M2 19L10 6l4 6 2-3 6 10z M17 5a1.500 1.500 0 1 1 0-.1"],
  [/gam|游戏/i, "M7 8h10a5 5 0 0 1 4 8c-2 3-4 0-5-2H8c-1 2-3 5-5 2a5 5 0 0 1 4-8z M8 10v3 M6.500 11.500h3 M16 11h.1 M18 12.500h.1"],
  [/craft|diy|手工/i, "M6 4a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z M6 15a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z M8 8l12 10 M8 16L20 6"],
];
const PLAY = "M8 5l11 7-11 7z";
const LOOP_S = 14;

function seeded(text) {
  let state = 2166136261;
  for (const char of text) state = Math.imul(state ^ char.codePointAt(0), 16777619);
  return () => {
    state = Math.imul(state ^ (state >>> 15), 2246822519) + 0x9e3779b9 | 0;
    return ((state ^ (state >>> 13)) >>> 0) / 4294967296;
  };
}

export class Art {
  constructor(canvas, played) {
    this.canvas = canvas;
    this.played = played;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.began = performance.now();
    this.last = 0;
    requestAnimationFrame((now) => this.frame(now));
  }

  show(id, category) {
    const random = seeded(id);
    const hue = random() * 360;
    this.colours = [hue, hue + 35 + random() * 30, hue + 180 + random() * 60].map((h) => h % 360);
    this.spots = Array.from({ length: 4 }, () => ({
      x: random(), y: random() * 0.8, r: 0.25 + random() * 0.4, drift: random() * 6.283, colour: Math.floor(random() * 3),
    }));
    this.sign = new Path2D((SIGNS.find(([pattern]) => pattern.test(category)) || [0, PLAY])[1]);
    this.began = performance.now();
    this.last = 0;
    this.once = true;
  }

  frame(now) {
    requestAnimationFrame((next) => this.frame(next));
    if (!this.colours || document.hidden || now - this.last < 45 || (this.still.matches && !this.once)) return;
    this.once = false;
    this.last = now;
    this.draw(this.still.matches ? 0 : (now - this.began) / 1000);
  }

  draw(seconds) {
    const { canvas } = this;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const paint = canvas.getContext("2d");
    const [a, b, c] = this.colours;
    const ground = paint.createLinearGradient(0, 0, width * 0.4, height);
    ground.addColorStop(0, `hsl(${a} 55% 34%)`);
    ground.addColorStop(1, `hsl(${b} 60% 20%)`);
    paint.fillStyle = ground;
    paint.fillRect(0, 0, width, height);
    for (const spot of this.spots) {
      const x = (spot.x + 0.08 * Math.sin(seconds / 3 + spot.drift)) * width;
      const y = (spot.y + 0.06 * Math.cos(seconds / 4 + spot.drift)) * height;
      const radius = spot.r * width;
      const glow = paint.createRadialGradient(x, y, 0, x, y, radius);
      const hue = [a, b, c][spot.colour];
      glow.addColorStop(0, `hsl(${hue} 75% 60% / .5)`);
      glow.addColorStop(1, `hsl(${hue} 75% 60% / 0)`);
      paint.fillStyle = glow;
      paint.fillRect(0, 0, width, height);
    }
    const size = Math.min(width, height) * 0.46;
    paint.save();
    paint.translate(width / 2, height * 0.4 + 6 * Math.sin(seconds));
    paint.rotate(0.03 * Math.sin(seconds / 1.7));
    paint.scale(size / 24, size / 24);
    paint.translate(-12, -12);
    paint.lineWidth = 1.1;
    paint.lineCap = paint.lineJoin = "round";
    paint.fillStyle = "rgb(255 255 255 / .13)";
    paint.fill(this.sign);
    paint.strokeStyle = "rgb(255 255 255 / .92)";
    paint.stroke(this.sign);
    paint.restore();
    this.played.style.width = `${((seconds % LOOP_S) / LOOP_S) * 100}%`;
  }
}
