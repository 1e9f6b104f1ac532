// The entry of the addon, called once for every environment that loads it.

#include <node_api.h>

#include "Addon.h"
#include "Descriptor.h"
#include "Exports.h"
#include "FaultPoller.h"
#include "Poller.h"
#include "Region.h"

namespace uffd {

void exportFunction(Addon& addon, napi_value exports, const char* name, napi_callback callback) {
  napi_value function = nullptr;
  if (napi_create_function(addon.env(), name, NAPI_AUTO_LENGTH, callback, &addon, &function) != napi_ok) return;
  napi_set_named_property(addon.env(), exports, name, function);
}

}  // namespace uffd

NAPI_MODULE_INIT() {
  using namespace uffd;
  Addon* addon = Addon::create(env);
  if (addon == nullptr) return nullptr;
  exportConstants(*addon, exports);
  Descriptor::define(*addon, exports);
  exportUffdOpen(*addon, exports);
  exportUffdRange(*addon, exports);
  exportUffdVector(*addon, exports);
  exportRegionGather(*addon, exports);
  exportBusyPoll(*addon, exports);
  exportAnswerRequests(*addon, exports);
  exportFetchPages(*addon, exports);
  exportSendRanges(*addon, exports);
  exportUffdEvents(*addon, exports);
  Poller::define(*addon, exports);
  FaultPoller::define(*addon, exports);
  Region::define(*addon, exports);
  exportPageScan(*addon, exports);
  exportSelfTest(*addon, exports);
  exportSeals(*addon, exports);
  exportStream(*addon, exports);
  exportPassing(*addon, exports);
  exportSocket(*addon, exports);
  exportSocketAddress(*addon, exports);
  exportSocketState(*addon, exports);
  exportProcess(*addon, exports);
  return exports;
}
