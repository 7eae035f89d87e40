// Generates valid and malformed packets of clients from one seed.
import { frame } from '../../e2e/support/raw.js';

/** A reproducible random generator (mulberry32). */
export class Dice {
  constructor(seed) {
    this.state = seed >>> 0;
  }

  below(n) {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  }

  pick(items) {
    return items[this.below(items.length)];
  }

  /** Returns true once in `n` times on average. */
  once(n) {
    return this.below(n) === 0;
  }
}

const EVENTS = ['task:join', 'task:leave', 'dashboard:join', 'dashboard:leave', 'resync_requested', 'auth:refresh', 'nonsense', '', 'connect', 'disconnect', '__proto__', 'task:state'];
/** JSON values that replace a valid value. */
const INVALID_VALUES = ['null', 'true', '0', '-0', '1e400', '1e-400', '9007199254740993', '-1.5', '""', '"x"', '"\\u0000"', '"\\ud800"', '"🦀"', '[]', '{}', '[[]]', '{"$ne":null}', '{"__proto__":{"taskId":"x"}}',
  '{"_placeholder":true,"num":0}', '{"_placeholder":true,"num":-1}', '{"_placeholder":true,"num":"splice"}', '{"toString":"x","length":1e9}', '"constructor"', '"../../x"', '"%00"', '"$where"'];
const INVALID_UTF8 = [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe2, 0x82], [0x80]].map((bytes) => Buffer.from(bytes));

export class Packets {
  /** `ids` are task ids, visible and not visible. `tokens` are valid and invalid tokens. */
  constructor(dice, { ids, tokens }) {
    Object.assign(this, { dice, ids, tokens });
  }

  /** A valid payload for the event. */
  payload(event) {
    const { dice } = this;
    const id = () => JSON.stringify(dice.pick(this.ids));
    if (event === 'resync_requested') {
      return dice.pick(['null', '{}', `{"taskIds":[${id()},${id()}],"dashboard":true}`, `{"taskIds":[${id()}],"since":"0"}`, `{"dashboard":true,"since":"${'0'.repeat(16)}.00000000.0000"}`]);
    }
    if (event === 'auth:refresh') return `{"token":${JSON.stringify(dice.pick(this.tokens))}}`;
    return `{"taskId":${id()}}`;
  }

  /** A Socket.IO packet in an Engine.IO message. Most packets are valid. */
  next() {
    const { dice } = this;
    const event = dice.pick(EVENTS);
    const ack = dice.once(3) ? '' : String(dice.below(1000));
    let payload = this.payload(event);
    switch (dice.below(12)) {
      case 0: payload = dice.pick(INVALID_VALUES); break;
      case 1: payload = payload.replace(/:("[^"]*"|\[[^\]]*\]|true)/, () => `:${dice.pick(INVALID_VALUES)}`); break;
      case 2: payload = `${'['.repeat(dice.below(3000))}`.replace(/^(\[*)$/, (open) => open + ']'.repeat(open.length)) || '[]'; break;
      case 3: payload = `{"taskId":"${'x'.repeat(dice.below(5000))}"}`; break;
      case 4: payload = `${payload},${dice.pick(INVALID_VALUES)}`; break;
      case 5: payload = `{"taskId":"a","taskId":${dice.pick(INVALID_VALUES)},"more":${payload}}`; break;
      default:
    }
    const body = `[${JSON.stringify(event)},${payload}]`;
    switch (dice.below(16)) {
      case 0: return Buffer.from(`45${dice.pick(['0', '1', '2', '10', '4294967295'])}-${ack}${body}`);
      case 1: return Buffer.from(`42/${dice.pick(['', 'admin', '🦀', 'x'.repeat(300)])},${ack}${body}`);
      case 2: return Buffer.from(`43${ack}[]`);
      case 3: return Buffer.from(dice.pick(['40', '40{}', '40/admin,', `40{"token":${dice.pick(INVALID_VALUES)}}`]));
      case 4: return Buffer.from('3');
      default: return Buffer.from(`42${ack}${body}`);
    }
  }

  /** Breaks a packet in a random way. */
  broken(packet) {
    const { dice } = this;
    const offset = dice.below(packet.length + 1);
    const [head, tail] = [packet.subarray(0, offset), packet.subarray(offset)];
    const text = () => packet.toString('latin1');
    switch (dice.below(14)) {
      case 0: {
        const copy = Buffer.from(packet);
        for (let n = 0; n <= dice.below(4) && copy.length > 0; n += 1) copy[dice.below(copy.length)] ^= 1 << dice.below(8);
        return copy;
      }
      case 1: return head;
      case 2: return tail;
      case 3: return Buffer.concat([packet, packet, tail]);
      case 4: return Buffer.concat([head, dice.pick(INVALID_UTF8), tail]);
      case 5: return Buffer.from(`${dice.pick([...'0123456789bx\u0000é'])}${text().slice(1)}`);
      case 6: return Buffer.from(`4${dice.pick([...'0123456789x-,/['])}${text().slice(2)}`);
      case 7: return Buffer.from(`45${dice.pick(['-1', '99999999999999999999', '4294967296', '1.5', '', '٣'])}-${text().slice(2)}`);
      case 8: return Buffer.from(`42${dice.pick(['18446744073709551616', '18446744073709551615', '00', '-1'])}${text().slice(2).replace(/^\d+/, '')}`);
      case 9: return Buffer.concat([head, Buffer.from('\x1e'), tail]);
      case 10: return Buffer.from(`42["task:join",${'{"a":'.repeat(dice.below(5000))}`);
      case 11: return Buffer.from(`42["${'x'.repeat(dice.below(70_000))}"]`);
      case 12: return Buffer.from(dice.pick(['', '4', '2', '2probe', '3probe', '5', '6', '0', '1', '41', '4/', '40/', '42', '42[', '42[]', '42{}', '42["x"', '44{}', '46-[]', 'b', 'bAAAA', 'b!!!', '{"sid":"x"}']));
      default: return Buffer.concat([tail, head]);
    }
  }
}

/** Puts a packet into frames that no WebSocket library would send. */
export function brokenFrame(dice, packet) {
  switch (dice.below(12)) {
    case 0: return frame(packet, { masked: false });
    case 1: return frame(packet, { rsv: 1 + dice.below(7) });
    case 2: return frame(packet, { opcode: 3 + dice.below(5) });
    case 3: return frame(packet, { length: 2 ** 53 - 1 });
    case 4: return frame(packet, { opcode: 0 });
    case 5: return frame(packet, { opcode: 9, fin: false });
    case 6: return frame(Buffer.alloc(126), { opcode: 9 });
    case 7: return frame(Buffer.from([0x03]), { opcode: 8 });
    case 8: return frame(Buffer.from([0x00, 0x00, 0xff]), { opcode: 8 });
    case 9: return Buffer.concat([frame(packet, { fin: false }), frame(packet)]);
    case 10: return Buffer.concat([frame(Buffer.from('x'), { opcode: 9 }), frame(Buffer.from('y'), { opcode: 10 })]);
    default: return frame(packet, { opcode: 2 });
  }
}
