// Rows of the embedding into panels, and panels back into rows: transposes of sixteen by sixteen.
#pragma once

#include "cpu/product.h"

namespace pythia_fast::cpu::PF_ISA {

template <typename M, typename Source>
void embed_of(const EmbedWork& work, void*) {
  const std::int64_t features = work.weight.columns;
  const auto* data = static_cast<const Source*>(work.weight.data);
  for (std::int64_t panel = work.panel_begin; panel < work.panel_end; ++panel) {
    const std::int32_t* ids = work.ids + panel * lanes;
    float* to = work.x + panel * features * lanes;
    for (std::int64_t feature = 0; feature < features; feature += lanes) {
      Vec tile[lanes];
      for (int i = 0; i < lanes; ++i) {
        tile[i] = widen_some(data + ids[i] * work.weight.stride + feature, features - feature);
      }
      transpose(tile);
      for (int i = 0; i < lanes && feature + i < features; ++i) {
        store(to + (feature + i) * lanes, tile[i]);
      }
    }
  }
}

PF_BY_STORED_TYPE(embed, EmbedWork)

template <typename M, typename Source>
void pick_of(const PickWork& work, void*) {
  const std::int64_t features = work.weight.columns, size = padded(features) * lanes;
  const auto* data = static_cast<const Source*>(work.weight.data);
  auto* out = static_cast<typename M::Element*>(work.out.data);
  for (std::int64_t panel = work.panel_begin; panel < work.panel_end; ++panel) {
    const std::int32_t* rows = work.rows + panel * lanes;
    for (std::int64_t feature = 0; feature < padded(features); feature += lanes) {
      Vec tile[lanes];
      for (int i = 0; i < lanes; ++i) {
        const std::int64_t left = rows[i] < 0 ? 0 : features - feature;
        tile[i] =
            left <= 0 ? set1(0) : widen_some(data + rows[i] * work.weight.stride + feature, left);
      }
      transpose(tile);
      for (int i = 0; i < lanes; i += 2) {
        M::put_pair(out + panel * size, work.out.panels * size, feature + i, tile[i], tile[i + 1]);
      }
    }
  }
}

PF_BY_STORED_TYPE(pick, PickWork)

inline void unpack(const UnpackWork& work, void*) {
  const std::int64_t features = work.features;
  for (std::int64_t panel = work.panel_begin; panel < work.panel_end; ++panel) {
    const float* from = work.x + panel * features * lanes;
    float* to = work.to + panel * lanes * features;
    for (std::int64_t feature = 0; feature < features; feature += lanes) {
      const std::int64_t some = features - feature < lanes ? features - feature : lanes;
      Vec tile[lanes];
      for (int i = 0; i < lanes; ++i) {
        tile[i] = i < some ? load(from + (feature + i) * lanes) : set1(0);
      }
      transpose(tile);
      for (int i = 0; i < lanes; ++i) {
        float row[lanes];
        store(row, tile[i]);
        for (int j = 0; j < some; ++j) to[i * features + feature + j] = row[j];
      }
    }
  }
}

}  // namespace pythia_fast::cpu::PF_ISA
