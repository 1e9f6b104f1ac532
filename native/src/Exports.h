// What each file adds to the module's exports, and the short way to add a function.
#pragma once

#include <node_api.h>

#include "Addon.h"

namespace uffd {

void exportFunction(Addon& addon, napi_value exports, const char* name, napi_callback callback);

void exportConstants(Addon& addon, napi_value exports);
void exportUffdOpen(Addon& addon, napi_value exports);
void exportUffdRange(Addon& addon, napi_value exports);
void exportBusyPoll(Addon& addon, napi_value exports);
void exportAnswerRequests(Addon& addon, napi_value exports);
void exportFetchPages(Addon& addon, napi_value exports);
void exportSendRanges(Addon& addon, napi_value exports);
void exportRegionGather(Addon& addon, napi_value exports);
void exportUffdVector(Addon& addon, napi_value exports);
void exportUffdEvents(Addon& addon, napi_value exports);
void exportPageScan(Addon& addon, napi_value exports);
void exportSelfTest(Addon& addon, napi_value exports);
void exportSeals(Addon& addon, napi_value exports);
void exportStream(Addon& addon, napi_value exports);
void exportPassing(Addon& addon, napi_value exports);
void exportSocket(Addon& addon, napi_value exports);
void exportSocketAddress(Addon& addon, napi_value exports);
void exportSocketState(Addon& addon, napi_value exports);
void exportProcess(Addon& addon, napi_value exports);

}  // namespace uffd
