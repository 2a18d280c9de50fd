// Loads a SavedModel and runs its signatures without Python: LoadSavedModel, then session->Run, with XLA disabled, as
// TensorFlow Serving does.
//
//   loader FOLDER REQUESTS REPLIES [FOLDER REQUESTS REPLIES ...]
//
// Both files are sequences of calls in the machine's byte order. Numbers are int64, a text is its length and its bytes,
// a tensor is dtype (of types.proto), rank, sizes and data (of strings: a text each).
//   request:  signature, number of inputs, per input: name, tensor
//   reply:    error (empty if none), number of outputs, per output: name, tensor
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/public/session_options.h"

namespace tensorflow {
void DisableXlaCompilation();
}

namespace {

using tensorflow::Tensor;

int64_t ReadNumber(std::istream& in) {
  int64_t value = 0;
  in.read(reinterpret_cast<char*>(&value), sizeof(value));
  return value;
}

std::string ReadText(std::istream& in) {
  std::string text(ReadNumber(in), '\0');
  in.read(&text[0], text.size());
  return text;
}

Tensor ReadTensor(std::istream& in) {
  const auto dtype = static_cast<tensorflow::DataType>(ReadNumber(in));
  tensorflow::TensorShape shape;
  for (int64_t rank = ReadNumber(in); rank > 0; --rank) shape.AddDim(ReadNumber(in));
  Tensor tensor(dtype, shape);
  if (dtype == tensorflow::DT_STRING) {
    auto flat = tensor.flat<tensorflow::tstring>();
    for (int64_t i = 0; i < flat.size(); ++i) flat(i) = ReadText(in);
  } else {
    const auto data = tensor.tensor_data();
    in.read(const_cast<char*>(data.data()), data.size());
  }
  return tensor;
}

void Write(std::ostream& out, int64_t value) { out.write(reinterpret_cast<const char*>(&value), sizeof(value)); }

void Write(std::ostream& out, const std::string& text) {
  Write(out, static_cast<int64_t>(text.size()));
  out.write(text.data(), text.size());
}

void Write(std::ostream& out, const Tensor& tensor) {
  Write(out, static_cast<int64_t>(tensor.dtype()));
  Write(out, static_cast<int64_t>(tensor.dims()));
  for (int axis = 0; axis < tensor.dims(); ++axis) Write(out, static_cast<int64_t>(tensor.dim_size(axis)));
  if (tensor.dtype() == tensorflow::DT_STRING) {
    const auto flat = tensor.flat<tensorflow::tstring>();
    for (int64_t i = 0; i < flat.size(); ++i) Write(out, std::string(flat(i)));
  } else {
    const auto data = tensor.tensor_data();
    out.write(data.data(), data.size());
  }
}

int Answer(const std::string& folder, const std::string& requests, const std::string& replies) {
  tensorflow::SavedModelBundle bundle;
  const auto loaded =
      tensorflow::LoadSavedModel(tensorflow::SessionOptions(), tensorflow::RunOptions(), folder, {"serve"}, &bundle);
  if (!loaded.ok()) {
    std::cerr << loaded.ToString() << "\n";
    return 1;
  }
  const auto& signatures = bundle.meta_graph_def.signature_def();
  std::ifstream in(requests, std::ios::binary);
  std::ofstream out(replies, std::ios::binary);
  while (in.peek() != std::char_traits<char>::eof()) {
    const std::string name = ReadText(in);
    if (signatures.find(name) == signatures.end()) {
      std::cerr << "no signature " << name << "\n";
      return 1;
    }
    const auto& signature = signatures.at(name);
    if (signature.method_name() != "tensorflow/serving/predict") {
      std::cerr << name << " is no method for prediction\n";
      return 1;
    }
    std::vector<std::pair<std::string, Tensor>> inputs;
    for (int64_t left = ReadNumber(in); left > 0; --left) {
      const std::string key = ReadText(in);
      inputs.emplace_back(signature.inputs().at(key).name(), ReadTensor(in));
    }
    std::vector<std::string> keys, fetched;
    for (const auto& output : signature.outputs()) {
      keys.push_back(output.first);
      fetched.push_back(output.second.name());
    }
    std::vector<Tensor> results;
    const auto ran = bundle.session->Run(inputs, fetched, {}, &results);
    Write(out, ran.ok() ? std::string() : ran.ToString());
    Write(out, static_cast<int64_t>(results.size()));
    for (size_t i = 0; i < results.size(); ++i) {
      Write(out, keys[i]);
      Write(out, results[i]);
    }
  }
  return out.good() ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4 || count % 3 != 1) {
    std::cerr << "usage: loader FOLDER REQUESTS REPLIES [FOLDER REQUESTS REPLIES ...]\n";
    return 2;
  }
  tensorflow::DisableXlaCompilation();
  for (int i = 1; i < count; i += 3) {
    const int failed = Answer(arguments[i], arguments[i + 1], arguments[i + 2]);
    if (failed) return failed;
  }
  return 0;
}
