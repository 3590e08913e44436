// What a training order costs when its samples are cut as one would first write it: one loop, one
// document after the other. Built as a library by order_peer.py.
#include <cstdint>

// rows[0 … samples] = where each sample begins: position in `documents`, token of that document.
extern "C" void cut(const std::int32_t* lengths, const std::int32_t* documents,
                    std::int64_t sequence_length, std::int64_t samples, std::int64_t* rows) {
  std::int64_t position = 0;
  std::int64_t offset = 0;
  rows[0] = rows[1] = 0;
  for (std::int64_t sample = 1; sample <= samples; ++sample) {
    for (std::int64_t wanted = sequence_length + 1;;) {
      const std::int64_t there = lengths[documents[position]] - offset;
      if (there >= wanted) {
        offset += wanted - 1;
        break;
      }
      wanted -= there;
      offset = 0;
      ++position;
    }
    rows[2 * sample] = position;
    rows[2 * sample + 1] = offset;
  }
}
