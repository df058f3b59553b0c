// One soft actor-critic update on one thread, for train_behaviour.py (built and called by it).
//
// Twin critics: two hidden layers, each LayerNorm (no affine part) then ReLU.  Actor: two hidden
// ReLU layers and a head of 16 columns, the first `act` the means, the next `act` the log stds.
// Matrices are row-major, x @ w + b.  A replay row is [obs | action | next obs | reward | discount].

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

typedef float V __attribute__((vector_size(64), aligned(4), may_alias));  // 16 floats
static const int HEAD = 16;

// A block of R x (16 C) of c = a b (+ bias), where a(i, p) = a[i * rs + p * cs].
template <int R, int C>
static inline void block(int k, const float* a, int rs, int cs, const float* b, int ldb, float* c,
                         int ldc, const float* bias) {
  V s[R][C];
  for (int j = 0; j < C; j++)
    for (int i = 0; i < R; i++) s[i][j] = bias ? *(const V*)(bias + 16 * j) : V{};
  for (int p = 0; p < k; p++) {
    V y[C];
    for (int j = 0; j < C; j++) y[j] = *(const V*)(b + (size_t)p * ldb + 16 * j);
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
      const float x = a[i * rs + p * cs];
      for (int j = 0; j < C; j++) s[i][j] += x * y[j];
    }
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < C; j++) *(V*)(c + i * ldc + 16 * j) = s[i][j];
}

template <int C>
static void columns(int m, int k, const float* a, int rs, int cs, const float* b, int ldb,
                    float* c, int ldc, const float* bias) {
  int i = 0;
  for (; i + 8 <= m; i += 8) block<8, C>(k, a + i * rs, rs, cs, b, ldb, c + i * ldc, ldc, bias);
  for (; i < m; i++) block<1, C>(k, a + i * rs, rs, cs, b, ldb, c + i * ldc, ldc, bias);
}

// c[m, n] = a b + bias; n is a multiple of 16.
static void gemm(int m, int n, int k, const float* a, int rs, int cs, const float* b, float* c,
                 const float* bias = nullptr) {
  int j = 0;
  for (; j + 32 <= n; j += 32)
    columns<2>(m, k, a, rs, cs, b + j, n, c + j, n, bias ? bias + j : nullptr);
  if (j < n) columns<1>(m, k, a, rs, cs, b + j, n, c + j, n, bias ? bias + j : nullptr);
}

static void transpose(int m, int n, const float* a, float* b) {
  for (int i = 0; i < m; i += 16)
    for (int j = 0; j < n; j += 16)
      for (int q = j; q < n && q < j + 16; q++)
        for (int p = i; p < m && p < i + 16; p++) b[q * m + p] = a[p * n + q];
}

static void column_sums(int m, int n, const float* a, float* s) {
  std::memset(s, 0, n * sizeof(float));
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) s[j] += a[i * n + j];
}

struct Mlp {  // sizes and offsets of one network's parameters in a flat vector
  int in, width, out, b0, w1, b1, w2, b2, size;
  Mlp(int i, int w, int o) : in(i), width(w), out(o) {
    b0 = in * w, w1 = b0 + w, b1 = w1 + w * w, w2 = b1 + w, b2 = w2 + w * out, size = b2 + out;
  }
};

struct Adam {
  std::vector<float> m, v, g;
  double t = 0;
  explicit Adam(int n) : m(n), v(n), g(n) {}
  void step(float* p, float lr) {
    t += 1;
    const float a = lr / (1 - std::pow(0.9, t)), b = 1 / (1 - std::pow(0.999, t));
    for (size_t i = 0; i < g.size(); i++) {
      m[i] += 0.1f * (g[i] - m[i]);
      v[i] += 0.001f * (g[i] * g[i] - v[i]);
      p[i] -= a * m[i] / (std::sqrt(b * v[i]) + 1e-8f);
    }
  }
};

struct Random {  // xoroshiro-style 64-bit generator
  uint64_t s;
  uint64_t next() {
    uint64_t z = (s += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  void normal(float* x, int n) {
    for (int i = 0; i < n; i += 2) {
      const uint64_t z = next();
      const float u = ((z >> 40) + 1) * 0x1p-24f, w = (z & 0xffffff) * 0x1p-24f * 6.2831853f;
      const float r = std::sqrt(-2 * std::log(u));
      x[i] = r * std::cos(w);
      if (i + 1 < n) x[i + 1] = r * std::sin(w);
    }
  }
};

struct Pass {  // what a critic's forward pass leaves for its backward pass
  std::vector<float> n0, n1, h0, h1, r0, r1, q;
  Pass(int b, int w) : n0(b * w), n1(b * w), h0(b * w), h1(b * w), r0(b), r1(b), q(b) {}
};

static void normalise(int m, int n, float* x, float* h, float* rstd) {
  for (int i = 0; i < m; i++, x += n, h += n) {
    float s = 0, v = 0;
    for (int j = 0; j < n; j++) s += x[j];
    s /= n;
    for (int j = 0; j < n; j++) v += (x[j] - s) * (x[j] - s);
    const float r = rstd[i] = 1 / std::sqrt(v / n + 1e-5f);
    for (int j = 0; j < n; j++) x[j] = (x[j] - s) * r, h[j] = x[j] > 0 ? x[j] : 0;
  }
}

static void normalise_back(int m, int n, float* d, const float* x, const float* rstd) {
  for (int i = 0; i < m; i++, x += n, d += n) {
    float s = 0, v = 0;
    for (int j = 0; j < n; j++) d[j] = x[j] > 0 ? d[j] : 0, s += d[j], v += d[j] * x[j];
    s /= n, v /= n;
    for (int j = 0; j < n; j++) d[j] = rstd[i] * (d[j] - s - x[j] * v);
  }
}

struct Sac {
  int obs, act, batch;
  float lr, tau, goal, alpha;
  Mlp q, pi;
  std::vector<float> critic, target, actor;
  Adam q_adam, pi_adam, alpha_adam;
  float log_alpha;
  Random random;
  Pass first, second;
  std::vector<float> rows, here, there, pair, h0, h1, head, noise, u, squashed, log_prob, y, d, e, t;

  Sac(int obs_, int act_, int batch_, int actor_width, int critic_width, float lr_, float goal_,
      float alpha_, uint64_t seed)
      : obs(obs_), act(act_), batch(batch_), lr(lr_), tau(0.005f), goal(goal_), alpha(alpha_),
        q(obs + act, critic_width, 1), pi(obs, actor_width, HEAD), critic(2 * q.size),
        actor(pi.size), q_adam(2 * q.size), pi_adam(pi.size), alpha_adam(1),
        log_alpha(std::log(alpha_)), random{seed * 7919 + 17}, first(batch, critic_width),
        second(batch, critic_width), here(batch * obs), there(batch * obs),
        pair(batch * (obs + act)), h0(batch * actor_width), h1(batch * actor_width),
        head(batch * HEAD), noise(batch * act), u(batch * act), squashed(batch * act),
        log_prob(batch), y(batch) {
    rows.resize(batch * (2 * obs + act + 2));
    const int w = critic_width > actor_width ? critic_width : actor_width;
    d.resize(batch * w), e.resize(batch * w), t.resize(w * w);
    for (int n = 0; n < 2; n++) {
      float* p = critic.data() + n * q.size;
      fill(p, q.in, q.width, 1), fill(p + q.w1, q.width, q.width, 1), fill(p + q.w2, q.width, 1, 1);
    }
    float* p = actor.data();
    fill(p, obs, pi.width, 1), fill(p + pi.w1, pi.width, pi.width, 1);
    fill(p + pi.w2, pi.width, HEAD, 0.1f);
    target = critic;
  }

  void fill(float* p, int in, int out, float gain) {
    const float bound = gain / std::sqrt((float)in);
    for (int i = 0; i < in * out; i++) p[i] = bound * ((random.next() >> 40) * 0x1p-23f - 1);
  }

  void value(const float* p, Pass& s) {  // of `pair`
    const int w = q.width;
    gemm(batch, w, q.in, pair.data(), q.in, 1, p, s.n0.data(), p + q.b0);
    normalise(batch, w, s.n0.data(), s.h0.data(), s.r0.data());
    gemm(batch, w, w, s.h0.data(), w, 1, p + q.w1, s.n1.data(), p + q.b1);
    normalise(batch, w, s.n1.data(), s.h1.data(), s.r1.data());
    for (int i = 0; i < batch; i++) {
      float z = 0;
      for (int j = 0; j < w; j++) z += s.h1[i * w + j] * p[q.w2 + j];
      s.q[i] = z + p[q.b2];
    }
  }

  // From dq to the gradients g of the parameters, or, without g, to d = the first layer's.
  void value_back(const float* p, Pass& s, const float* dq, float* g) {
    const int w = q.width;
    if (g) {
      std::memset(g + q.w2, 0, (w + 1) * sizeof(float));
      for (int i = 0; i < batch; i++) {
        for (int j = 0; j < w; j++) g[q.w2 + j] += dq[i] * s.h1[i * w + j];
        g[q.b2] += dq[i];
      }
    }
    for (int i = 0; i < batch; i++)
      for (int j = 0; j < w; j++) e[i * w + j] = dq[i] * p[q.w2 + j];
    normalise_back(batch, w, e.data(), s.n1.data(), s.r1.data());
    if (g) {
      gemm(w, w, batch, s.h0.data(), 1, w, e.data(), g + q.w1);
      column_sums(batch, w, e.data(), g + q.b1);
    }
    transpose(w, w, p + q.w1, t.data());
    gemm(batch, w, w, e.data(), w, 1, t.data(), d.data());
    normalise_back(batch, w, d.data(), s.n0.data(), s.r0.data());
    if (g) {
      gemm(q.in, w, batch, pair.data(), 1, q.in, d.data(), g);
      column_sums(batch, w, d.data(), g + q.b0);
    }
  }

  void sample(const std::vector<float>& x) {  // actions into `pair`, beside x
    const int w = pi.width;
    const float* p = actor.data();
    gemm(batch, w, obs, x.data(), obs, 1, p, h0.data(), p + pi.b0);
    for (float& z : h0) z = z > 0 ? z : 0;
    gemm(batch, w, w, h0.data(), w, 1, p + pi.w1, h1.data(), p + pi.b1);
    for (float& z : h1) z = z > 0 ? z : 0;
    gemm(batch, HEAD, w, h1.data(), w, 1, p + pi.w2, head.data(), p + pi.b2);
    random.normal(noise.data(), batch * act);
    for (int i = 0; i < batch; i++) {
      float total = 0;
      std::memcpy(&pair[i * q.in], &x[i * obs], obs * sizeof(float));
      for (int j = 0; j < act; j++) {
        const float z = noise[i * act + j];
        const float s = std::fmin(std::fmax(head[i * HEAD + act + j], -5.f), 2.f);
        const float a = head[i * HEAD + j] + std::exp(s) * z;
        const float soft = std::fmax(-2 * a, 0.f) + std::log1p(std::exp(-std::fabs(2 * a)));
        total -= s + 0.5f * z * z + 0.9189385f + 2 * (0.6931472f - a - soft);
        pair[i * q.in + obs + j] = squashed[i * act + j] = std::tanh(a);
      }
      log_prob[i] = total;
    }
  }

  float update(const float* store, int filled, int improve) {
    const int n = 2 * obs + act + 2;
    for (int i = 0; i < batch; i++) {
      const float* row = store + (size_t)(random.next() % filled) * n;
      std::memcpy(&rows[i * n], row, n * sizeof(float));
      std::memcpy(&here[i * obs], row, obs * sizeof(float));
      std::memcpy(&there[i * obs], row + obs + act, obs * sizeof(float));
    }
    sample(there);
    value(target.data(), first), value(target.data() + q.size, second);
    for (int i = 0; i < batch; i++) {
      const float next = std::fmin(first.q[i], second.q[i]) - alpha * log_prob[i];
      y[i] = rows[i * n + n - 2] + rows[i * n + n - 1] * next;
      std::memcpy(&pair[i * q.in], &rows[i * n], q.in * sizeof(float));
    }
    std::vector<float> dq(batch);
    float loss = 0;
    for (int k = 0; k < 2; k++) {
      const float* p = critic.data() + k * q.size;
      value(p, first);
      for (int i = 0; i < batch; i++) {
        dq[i] = 2 * (first.q[i] - y[i]) / batch;
        loss += (first.q[i] - y[i]) * (first.q[i] - y[i]) / batch;
      }
      value_back(p, first, dq.data(), q_adam.g.data() + k * q.size);
    }
    q_adam.step(critic.data(), lr);
    for (size_t i = 0; i < critic.size(); i++) target[i] += tau * (critic[i] - target[i]);
    if (improve) improve_actor();
    return loss;
  }

  void improve_actor() {
    const int w = pi.width;
    float* g = pi_adam.g.data();
    float* p = actor.data();
    sample(here);
    value(critic.data(), first), value(critic.data() + q.size, second);
    std::vector<float> da(batch * act, 0.f), dq(batch), dh(batch * HEAD, 0.f);
    for (int k = 0; k < 2; k++) {
      Pass& s = k ? second : first;
      const float* c = critic.data() + k * q.size;
      for (int i = 0; i < batch; i++)
        dq[i] = (first.q[i] <= second.q[i]) == (k == 0) ? -1.f / batch : 0.f;
      value_back(c, s, dq.data(), nullptr);
      for (int i = 0; i < batch; i++)
        for (int j = 0; j < act; j++) {
          float z = 0;
          for (int l = 0; l < q.width; l++) z += d[i * q.width + l] * c[(obs + j) * q.width + l];
          da[i * act + j] += z;
        }
    }
    float mean = 0;
    for (int i = 0; i < batch; i++) {
      mean += log_prob[i] / batch;
      for (int j = 0; j < act; j++) {
        const float a = squashed[i * act + j], s = head[i * HEAD + act + j];
        // log_prob = ... - s - log(1 - tanh(u)^2), whose derivative by u is 2 tanh(u)
        const float du = da[i * act + j] * (1 - a * a) + alpha / batch * 2 * a;
        dh[i * HEAD + j] = du;
        if (s > -5 && s < 2)
          dh[i * HEAD + act + j] = du * std::exp(s) * noise[i * act + j] - alpha / batch;
      }
    }
    gemm(w, HEAD, batch, h1.data(), 1, w, dh.data(), g + pi.w2);
    column_sums(batch, HEAD, dh.data(), g + pi.b2);
    transpose(w, HEAD, p + pi.w2, t.data());
    gemm(batch, w, HEAD, dh.data(), HEAD, 1, t.data(), e.data());
    for (int i = 0; i < batch * w; i++) e[i] = h1[i] > 0 ? e[i] : 0;
    gemm(w, w, batch, h0.data(), 1, w, e.data(), g + pi.w1);
    column_sums(batch, w, e.data(), g + pi.b1);
    transpose(w, w, p + pi.w1, t.data());
    gemm(batch, w, w, e.data(), w, 1, t.data(), d.data());
    for (int i = 0; i < batch * w; i++) d[i] = h0[i] > 0 ? d[i] : 0;
    gemm(obs, w, batch, here.data(), 1, obs, d.data(), g);
    column_sums(batch, w, d.data(), g + pi.b0);
    pi_adam.step(p, lr);
    alpha_adam.g[0] = -alpha * (mean + goal);
    alpha_adam.step(&log_alpha, lr);
    alpha = std::exp(log_alpha);
  }
};

extern "C" {
Sac* sac_new(int obs, int act, int batch, int actor_width, int critic_width, float lr, float goal,
             float alpha, uint64_t seed) {
  return new Sac(obs, act, batch, actor_width, critic_width, lr, goal, alpha, seed);
}
float* sac_actor(Sac* s) { return s->actor.data(); }
float* sac_critic(Sac* s) { return s->critic.data(); }
float* sac_gradient(Sac* s, int which) { return which ? s->q_adam.g.data() : s->pi_adam.g.data(); }
float sac_alpha(Sac* s) { return s->alpha; }
float sac_update(Sac* s, const float* store, int filled, int improve) {
  return s->update(store, filled, improve);
}
}
