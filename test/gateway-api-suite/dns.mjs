// Stands for the suite's CoreDNS, whose image is not fetched: answers every question over UDP that there is no such name. The suite asks
// whether a question and its answer pass a gateway, not what the answer says.

import { createSocket } from "node:dgram";

/** The lengths of a header, and where its two bytes of flags begin. */
const header = { bytes: 12, flags: 2 };
/** An answer, with the recursion that was asked for, and the code for "no such name". */
const answerFlags = 0x8183;

const socket = createSocket("udp4");
socket.on("message", (question, { address, port }) => {
  if (question.length < header.bytes) return;
  const answer = Buffer.from(question);
  answer.writeUInt16BE(answerFlags, header.flags);
  socket.send(answer, port, address);
});
socket.bind(53);
